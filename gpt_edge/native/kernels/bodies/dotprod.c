/* The operators with NEON and its dot products. */
#include "../guard.h"

#if IS_ARM
TARGET("arch=armv8.2-a+dotprod")
#include "../products/common.h"
#include "../vector/neon.h"
/* after the vectors */
#include "../products/dotprod.h"
/* after the products */
#include "../operators/products.h"

BODY(dotprod, others_neon);
END_TARGET
#endif
