/* The operators' entry into onnxruntime. */
#include "ort.h"
#include "x86_avx512/operators.h"
#include "x86_avx512/tiles.h"

__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtOptions *options,
                                                                    const OrtApiBase *base) {
    OrtApi api = base->get_api(ORT_API);
    request_tiles();
    /* must outlive the session, and is as small as a name: each session gets its own */
    OrtDomain *domain = NULL;
    TRY(ORT_CREATE_DOMAIN(api)("gpt_edge", &domain));
    const OrtCustomOp *operators[] = {&row_product,      &block_product,         &skip_norm,
                                      &cached_attention, &half_cached_attention, &plain_attention};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        TRY(ORT_ADD_TO_DOMAIN(api)(domain, operators[i]));
    return ORT_ADD_DOMAIN(api)(options, domain);
}
