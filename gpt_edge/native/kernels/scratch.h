/* Memory of a call that the next call reuses. */
#pragma once

#include <stddef.h>

void *take_scratch(size_t size); /* aligned to 64 bytes; NULL where there is no memory */
void give_scratch(void *memory); /* NULL is allowed */
