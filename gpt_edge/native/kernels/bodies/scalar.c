/* The operators with plain C: what the others are compared with. */
#include "../guard.h"

#define PLAIN_C
#include "../products/common.h"
#include "../vector/scalar.h"
/* after the vectors */
#include "../products/scalar.h"
/* after the products */
#include "../operators/others.h"
#include "../operators/products.h"

OTHERS(scalar);
BODY(scalar, others_scalar);
