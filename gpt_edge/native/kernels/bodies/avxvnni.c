/* The operators with AVX-VNNI. */
#include "../guard.h"

#if IS_X86
TARGET("avx2,fma,f16c,avxvnni")
#include "../products/common.h"
#include "../vector/avx2.h"
/* after the vectors */
#include "../products/avxvnni.h"
/* after the products */
#include "../operators/products.h"

BODY(avxvnni, others_avx2);
END_TARGET
#endif
