/* gpt_edge.h: small GPTs in a C program, and for what binds to C: Swift, Kotlin, C#, Rust, Python.
 *
 * Every function that can fail returns a gpt_edge_status; gpt_edge_last_error then has one line.
 * Texts are UTF-8 with a length in bytes. A model may be used by several threads at once.
 */
#ifndef GPT_EDGE_H
#define GPT_EDGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define GPT_EDGE_API __declspec(dllexport)
#elif defined(__GNUC__)
#define GPT_EDGE_API __attribute__((visibility("default")))
#else
#define GPT_EDGE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    GPT_EDGE_OK = 0,
    GPT_EDGE_INVALID_ARGUMENT = 1, /* a value out of range, a text that is not UTF-8, NULL */
    GPT_EDGE_BUNDLE = 2,           /* a file that is missing, corrupt or of another kind */
    GPT_EDGE_TOKENIZER = 3,        /* its file is corrupt, or of a kind that needs Python */
    GPT_EDGE_CONTEXT_LENGTH = 4,   /* the prompt does not fit */
    GPT_EDGE_NUMERIC = 5,          /* the model's logits are NaN or infinite */
    GPT_EDGE_RUNTIME = 6,          /* onnxruntime or the operators: not found, or refused */
    GPT_EDGE_OUT_OF_MEMORY = 7
} gpt_edge_status;

typedef enum {
    GPT_EDGE_STOP = 1, /* an end token or a stop string */
    GPT_EDGE_LENGTH = 2,
    GPT_EDGE_CONTEXT_FULL = 3,
    GPT_EDGE_CANCELLED = 4
} gpt_edge_finish_reason;

typedef struct gpt_edge_model gpt_edge_model;

/* Every member may be 0 or NULL. */
typedef struct {
    int32_t threads;         /* 1 to 256; 0: what the machine and its limits allow */
    const char *onnxruntime; /* its shared library; NULL: GPT_EDGE_ONNXRUNTIME, else by name */
    const char *operators;   /* gpt-edge's custom operators; NULL: GPT_EDGE_NATIVE, else none */
} gpt_edge_open_options;

/* Fill it with gpt_edge_init_params or gpt_edge_get_defaults first. */
typedef struct {
    int64_t max_new_tokens;    /* 400 */
    double temperature;        /* 0 is greedy; negative: not given, as for those below */
    int64_t top_k;             /* 0: not given */
    double top_p;
    double min_p;
    double typical_p;
    double repetition_penalty; /* 1: none */
    double presence_penalty;   /* 0: none */
    double frequency_penalty;  /* 0: none */
    int64_t no_repeat_ngram_size;
    int64_t min_new_tokens;
    uint64_t seed;
    int32_t has_seed;          /* 0 draws one from the operating system */
    int32_t ignore_end_token;
    int32_t special;           /* special tokens that the prompt spells become their ids */
    int32_t truncate_left;     /* a prompt that does not fit loses its start */
    const char *const *stop;   /* at most 4 texts in UTF-8, each ends with NUL */
    size_t n_stop;
    const int32_t *stop_token_ids;
    size_t n_stop_token_ids;
} gpt_edge_params;

/* What a generation gave; gpt_edge_free_result frees what it points to. */
typedef struct {
    char *text; /* UTF-8, ends with NUL */
    size_t n_bytes;
    int32_t *ids;
    size_t n_ids;
    int64_t prompt_tokens;
    int64_t dropped_tokens;
    uint64_t seed;         /* if has_seed: the one in use */
    double prefill_seconds;
    double decode_seconds;
    int32_t has_seed;      /* 0 when greedy */
    int32_t finish_reason; /* gpt_edge_finish_reason */
} gpt_edge_result;

/* Takes the next piece of the text, whole characters, NUL after the last; often it is empty. Also
 * called before each part of a long prompt. Returns 0 to go on, anything else ends the generation,
 * which then succeeds with GPT_EDGE_CANCELLED.
 */
typedef int32_t (*gpt_edge_on_text)(const char *piece, size_t n_bytes, void *user);

/* Open the bundle in a folder. options: NULL for the defaults. */
GPT_EDGE_API int32_t gpt_edge_open(const char *folder, const gpt_edge_open_options *options,
                                   gpt_edge_model **model);
/* NULL is allowed. No other call may use the model. */
GPT_EDGE_API void gpt_edge_close(gpt_edge_model *model);

GPT_EDGE_API void gpt_edge_init_params(gpt_edge_params *params);
/* What the model's maker chose; greedy where the bundle says nothing. */
GPT_EDGE_API int32_t gpt_edge_get_defaults(const gpt_edge_model *model, gpt_edge_params *params);

/* Continue a prompt. params, on_text and result may be NULL. */
GPT_EDGE_API int32_t gpt_edge_generate(const gpt_edge_model *model, const char *prompt,
                                       size_t n_bytes, const gpt_edge_params *params,
                                       gpt_edge_on_text on_text, void *user,
                                       gpt_edge_result *result);
/* Continue token ids. */
GPT_EDGE_API int32_t gpt_edge_generate_ids(const gpt_edge_model *model, const int32_t *ids,
                                           size_t n_ids, const gpt_edge_params *params,
                                           gpt_edge_on_text on_text, void *user,
                                           gpt_edge_result *result);
GPT_EDGE_API void gpt_edge_free_result(gpt_edge_result *result);

/* Text to ids, ids to text. n_ids, n_bytes: how many there are; at most `capacity` are written, and
 * no NUL.
 */
GPT_EDGE_API int32_t gpt_edge_encode(const gpt_edge_model *model, const char *text, size_t n_bytes,
                                     int32_t special, int32_t *ids, size_t capacity,
                                     size_t *n_ids);
GPT_EDGE_API int32_t gpt_edge_decode(const gpt_edge_model *model, const int32_t *ids, size_t n_ids,
                                     char *text, size_t capacity, size_t *n_bytes);

GPT_EDGE_API int64_t gpt_edge_n_ctx(const gpt_edge_model *model);      /* tokens */
GPT_EDGE_API int64_t gpt_edge_vocab_size(const gpt_edge_model *model); /* ids are below it */
/* Whether gpt-edge's custom operators are in the graph. */
GPT_EDGE_API int32_t gpt_edge_uses_operators(const gpt_edge_model *model);

/* The error of this thread's last call that failed, "" before the first; valid until the next. */
GPT_EDGE_API const char *gpt_edge_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
