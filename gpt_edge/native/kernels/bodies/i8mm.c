/* The operators with NEON and its matrix products. */
#include "../guard.h"

#if IS_ARM
TARGET("arch=armv8.2-a+dotprod+i8mm")
#include "../products/common.h"
#include "../vector/neon.h"
/* after the vectors */
#include "../products/i8mm.h"
/* after the products */
#include "../operators/products.h"

BODY(i8mm, others_neon);
END_TARGET
#endif
