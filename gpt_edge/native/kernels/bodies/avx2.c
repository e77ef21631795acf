/* The operators with AVX2, FMA and F16C. */
#include "../guard.h"

#if IS_X86
TARGET("avx2,fma,f16c")
#include "../products/common.h"
#include "../vector/avx2.h"
/* after the vectors */
#include "../products/avx2.h"
/* after the products */
#include "../operators/others.h"
#include "../operators/products.h"

OTHERS(avx2);
BODY(avx2, others_avx2);
END_TARGET
#endif
