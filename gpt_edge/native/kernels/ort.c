/* What every operator does with its arguments: read, allocate, refuse. */
#include "ort.h"

OrtStatus *fail(OrtApi api, const char *message) {
    return ORT_CREATE_STATUS(api)(ORT_FAIL, message);
}

OrtStatus *read_value(OrtApi api, const OrtValue *value, Tensor *tensor) {
    OrtShape *shape = NULL;
    *tensor = (Tensor){0};
    if (!value) return NULL; /* an absent optional input */
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

OrtStatus *make_output(OrtApi api, OrtContext *context, size_t index, const int64_t *dims,
                       size_t rank, void **data) {
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
