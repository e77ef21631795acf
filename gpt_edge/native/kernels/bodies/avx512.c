/* The operators with AVX-512 VNNI. */
#include "../guard.h"

#if IS_X86
TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#include "../products/common.h"
#include "../vector/avx512.h"
/* after the vectors */
#include "../products/avx512.h"
/* after the products */
#include "../operators/others.h"
#include "../operators/products.h"

OTHERS(avx512);
BODY(avx512, others_avx512);
END_TARGET
#endif
