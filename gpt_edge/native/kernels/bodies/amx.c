/* The operators with AMX tiles and AVX-512 VNNI. */
#include "../guard.h"

#if IS_X86
TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-int8")
#include "../products/common.h"
#include "../vector/avx512.h"
/* after the vectors */
#include "../products/amx.h"
/* after the products */
#include "../operators/products.h"

BODY(amx, others_avx512);
END_TARGET
#endif
