/* The part of onnxruntime's C API that the custom operators use.
 *
 * OrtApi is a table of functions that only grows at its end (onnxruntime_c_api.h), so an index
 * names a function permanently. API 17 is that of onnxruntime 1.17.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { ORT_API = 17 };

typedef void *const *OrtApi;
typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtShape OrtShape;
typedef struct OrtContext OrtContext;
typedef struct OrtInfo OrtInfo;
typedef struct OrtOptions OrtOptions;
typedef struct OrtDomain OrtDomain;

typedef struct {
    OrtApi (*get_api)(uint32_t version);
    const char *(*get_version)(void);
} OrtApiBase;

#define ORT_CREATE_STATUS(api) ((OrtStatus * (*)(int, const char *))(api)[0])
#define ORT_CREATE_DOMAIN(api) ((OrtStatus * (*)(const char *, OrtDomain **))(api)[26])
#define ORT_ADD_TO_DOMAIN(api) ((OrtStatus * (*)(OrtDomain *, const struct OrtCustomOp *))(api)[27])
#define ORT_ADD_DOMAIN(api) ((OrtStatus * (*)(OrtOptions *, OrtDomain *))(api)[28])
#define ORT_DATA(api) ((OrtStatus * (*)(const OrtValue *, void **))(api)[51])
#define ORT_DIM_COUNT(api) ((OrtStatus * (*)(const OrtShape *, size_t *))(api)[61])
#define ORT_DIMS(api) ((OrtStatus * (*)(const OrtShape *, int64_t *, size_t))(api)[62])
#define ORT_SHAPE(api) ((OrtStatus * (*)(const OrtValue *, OrtShape **))(api)[65])
#define ORT_FLOAT(api) ((OrtStatus * (*)(const OrtInfo *, const char *, float *))(api)[85])
#define ORT_INT(api) ((OrtStatus * (*)(const OrtInfo *, const char *, int64_t *))(api)[86])
#define ORT_INPUT(api) ((OrtStatus * (*)(const OrtContext *, size_t, const OrtValue **))(api)[90])
#define ORT_OUTPUT(api) \
    ((OrtStatus * (*)(OrtContext *, size_t, const int64_t *, size_t, OrtValue **))(api)[91])
#define ORT_RELEASE_STATUS(api) ((void (*)(OrtStatus *))(api)[93])
#define ORT_RELEASE_SHAPE(api) ((void (*)(OrtShape *))(api)[99])
#define ORT_CONSTANT(api) \
    ((OrtStatus * (*)(const OrtInfo *, size_t, int *, const OrtValue **))(api)[249])
typedef OrtStatus *(*OrtParallel)(const OrtContext *, void (*)(void *, size_t), size_t, size_t,
                                  void *);
#define ORT_PARALLEL(api) ((OrtParallel)(api)[274])

enum { ORT_FAIL = 1 }; /* OrtErrorCode */
/* ONNXTensorElementDataType */
enum { ORT_FLOAT32 = 1, ORT_UINT8 = 2, ORT_INT8 = 3, ORT_INT32 = 6, ORT_FLOAT16 = 10 };
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 }; /* OrtCustomOpInputOutputCharacteristic */

typedef struct OrtCustomOp {
    uint32_t version;
    void *(*create_kernel)(const struct OrtCustomOp *, OrtApi, const OrtInfo *);
    const char *(*get_name)(const struct OrtCustomOp *);
    const char *(*get_provider)(const struct OrtCustomOp *);
    int (*get_input_type)(const struct OrtCustomOp *, size_t);
    size_t (*get_input_count)(const struct OrtCustomOp *);
    int (*get_output_type)(const struct OrtCustomOp *, size_t);
    size_t (*get_output_count)(const struct OrtCustomOp *);
    void (*compute)(void *, OrtContext *);
    void (*destroy)(void *);
    int (*get_input_need)(const struct OrtCustomOp *, size_t);
    int (*get_output_need)(const struct OrtCustomOp *, size_t);
    int (*get_input_memory)(const struct OrtCustomOp *, size_t);
    int (*get_variadic_input_arity)(const struct OrtCustomOp *);
    int (*get_variadic_input_sameness)(const struct OrtCustomOp *);
    int (*get_variadic_output_arity)(const struct OrtCustomOp *);
    int (*get_variadic_output_sameness)(const struct OrtCustomOp *);
    OrtStatus *(*create_kernel_or_fail)(const struct OrtCustomOp *, OrtApi, const OrtInfo *,
                                        void **);
    OrtStatus *(*compute_or_fail)(void *, OrtContext *);
    void *infer_shape, *get_start_version, *get_end_version; /* optional, like all members below */
    void *get_in_place, *release_in_place, *get_aliases, *release_aliases;
} OrtCustomOp;

/* A value: its elements and its shape. */
typedef struct {
    void *data;
    int64_t dims[8];
    size_t rank;
} Tensor;

/* The number of elements. */
static inline int64_t count(const Tensor *tensor) {
    int64_t n = 1;
    for (size_t i = 0; i < tensor->rank; i++) n *= tensor->dims[i];
    return n;
}

/* The first member of every kernel. */
typedef struct {
    OrtApi api;
    int64_t threads;
} Kernel;

OrtStatus *fail(OrtApi api, const char *message);
OrtStatus *read_value(OrtApi api, const OrtValue *value, Tensor *tensor);
OrtStatus *read_input(OrtApi api, const OrtContext *context, size_t index, Tensor *tensor);
OrtStatus *read_constant(OrtApi api, const OrtInfo *info, size_t index, Tensor *tensor);
OrtStatus *make_output(OrtApi api, OrtContext *context, size_t index, const int64_t *dims,
                       size_t rank, void **data);

/* Rows of a tensor [.., width]; -1 for another width. */
int64_t rows_of(const Tensor *tensor, int64_t width);

/* Call `work(data, i)` for i below n, on the session's threads. */
static inline OrtStatus *in_parallel(const Kernel *kernel, OrtContext *context,
                                     void (*work)(void *, size_t), size_t n, void *data) {
    if (n == 1 || kernel->threads == 1) {
        for (size_t i = 0; i < n; i++) work(data, i);
        return NULL;
    }
    return ORT_PARALLEL(kernel->api)(context, work, n, 0, data);
}

#define TRY(call)                    \
    do {                             \
        OrtStatus *status_ = (call); \
        if (status_) return status_; \
    } while (0)

static inline const char *on_cpu(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }
static inline int all_float(const OrtCustomOp *op, size_t i) {
    return (void)op, (void)i, ORT_FLOAT32;
}
static inline int all_needed(const OrtCustomOp *op, size_t i) {
    return (void)op, (void)i, ORT_REQUIRED;
}
static inline int anywhere(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, 0; }
static inline size_t one(const OrtCustomOp *op) { return (void)op, 1; }

/* The members that all operators have in common. */
#define OPERATOR                                                               \
    .version = ORT_API, .get_provider = on_cpu, .get_output_need = all_needed, \
    .get_input_memory = anywhere
