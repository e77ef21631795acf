/* The operators with NEON, as every 64-bit Arm has it. */
#include "../guard.h"

#if IS_ARM
TARGET("+simd")
#include "../products/common.h"
#include "../vector/neon.h"
/* after the vectors */
#include "../products/neon.h"
/* after the products */
#include "../operators/others.h"
#include "../operators/products.h"

OTHERS(neon);
BODY(neon, others_neon);
END_TARGET
#endif
