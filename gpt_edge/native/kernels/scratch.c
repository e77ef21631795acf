/* Memory of a call that the next call reuses: to allocate and fault in fresh memory costs more
 * than the work on it.
 */
#include "scratch.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
    size_t size;
    char unused[64 - sizeof(size_t)];
} Scratch;

static _Atomic(Scratch *) spare[64];

void *take_scratch(size_t size) {
    for (size_t i = 0; i < 64; i++) {
        if (!atomic_load_explicit(&spare[i], memory_order_relaxed)) continue;
        Scratch *scratch = atomic_exchange(&spare[i], NULL);
        if (scratch && scratch->size >= size) return scratch + 1;
        free(scratch); /* too small, and the next calls need as much */
    }
    Scratch *scratch = aligned_alloc(64, (size + 63) / 64 * 64 + sizeof(Scratch));
    if (!scratch) return NULL;
    scratch->size = size;
    return scratch + 1;
}

void give_scratch(void *memory) {
    Scratch *scratch = (Scratch *)memory - 1, *expected = NULL;
    for (size_t i = 0; memory && i < 64; i++, expected = NULL)
        if (atomic_compare_exchange_strong(&spare[i], &expected, scratch)) return;
    if (memory) free(scratch);
}
