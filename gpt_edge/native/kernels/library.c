/* The operators' entry into onnxruntime, and what they share. */
#include <stdatomic.h>
#include <stdlib.h>

#include "ort.h"
#include "x86_avx512/tiles.h"

#ifdef __AMX_INT8__
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 }; /* asm/prctl.h: Linux gives tiles to a process that asks */
#endif

int has_matrix_units;

/* Memory of a call that the next call takes over: fresh memory costs more than what is done with it. */
typedef struct {
    size_t size;
    char unused[64 - sizeof(size_t)];
} Scratch;

static _Atomic(Scratch *) spare[64];

void *take_scratch(size_t size) {
    for (size_t i = 0; i < 64; i++) {
        if (!atomic_load_explicit(&spare[i], memory_order_relaxed)) continue;
        Scratch *found = atomic_exchange(&spare[i], NULL);
        if (found && found->size >= size) return found + 1;
        free(found); /* too small, and the next calls are as large */
    }
    Scratch *made = aligned_alloc(64, (size + 63) / 64 * 64 + sizeof(Scratch));
    if (!made) return NULL;
    made->size = size;
    return made + 1;
}

void give_scratch(void *memory) {
    Scratch *given = (Scratch *)memory - 1, *nothing = NULL;
    for (size_t i = 0; memory && i < 64; i++, nothing = NULL)
        if (atomic_compare_exchange_strong(&spare[i], &nothing, given)) return;
    if (memory) free(given);
}

OrtStatus *fail(OrtApi api, const char *message) { return ORT_CREATE_STATUS(api)(ORT_FAIL, message); }

OrtStatus *read_value(OrtApi api, const OrtValue *value, Tensor *tensor) {
    OrtShape *shape = NULL;
    *tensor = (Tensor){0};
    if (!value) return NULL; /* an optional input that is not there */
    TRY(ORT_SHAPE(api)(value, &shape));
    OrtStatus *status = ORT_DIM_COUNT(api)(shape, &tensor->rank);
    if (!status && tensor->rank > 8) status = fail(api, "a tensor has more than eight axes");
    if (!status) status = ORT_DIMS(api)(shape, tensor->dims, tensor->rank);
    ORT_RELEASE_SHAPE(api)(shape);
    return status ? status : ORT_DATA(api)(value, &tensor->data);
}

OrtStatus *read_input(OrtApi api, const OrtContext *context, size_t index, Tensor *tensor) {
    const OrtValue *value = NULL;
    TRY(ORT_INPUT(api)(context, index, &value));
    return read_value(api, value, tensor);
}

OrtStatus *read_constant(OrtApi api, const OrtInfo *info, size_t index, Tensor *tensor) {
    const OrtValue *value = NULL;
    int is_constant = 0;
    TRY(ORT_CONSTANT(api)(info, index, &is_constant, &value));
    if (!is_constant) return fail(api, "weights must be constants of the graph");
    return read_value(api, value, tensor);
}

OrtStatus *make_output(OrtApi api, OrtContext *context, size_t index, const int64_t *dims, size_t rank, void **data) {
    OrtValue *value = NULL;
    TRY(ORT_OUTPUT(api)(context, index, dims, rank, &value));
    return ORT_DATA(api)(value, data);
}

int64_t rows_of(const Tensor *tensor, int64_t width) {
    if (tensor->rank < 1 || tensor->dims[tensor->rank - 1] != width) return -1;
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < tensor->rank; i++) rows *= tensor->dims[i];
    return rows;
}

__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtOptions *options, const OrtApiBase *base) {
    OrtApi api = base->get_api(ORT_API);
#ifdef __AMX_INT8__
    has_matrix_units = !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
#endif
    OrtDomain *domain = NULL; /* must outlive the session, and is as small as a name: one for each session */
    TRY(ORT_CREATE_DOMAIN(api)("gpt_edge", &domain));
    const OrtCustomOp *operators[] = {&row_product,      &block_product,         &skip_norm,
                                      &cached_attention, &half_cached_attention, &plain_attention};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        TRY(ORT_ADD_TO_DOMAIN(api)(domain, operators[i]));
    return ORT_ADD_DOMAIN(api)(options, domain);
}
