/* What the library shows outside: the operators' entry into onnxruntime, which bodies run here, and
 * whether they are right.
 */
#include <string.h>

#include "cpu.h"
#include "ort.h"

#ifdef _WIN32
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

/* The body of a name, of those that run here; the best for no name. NULL if there is none. */
static const Body *find_body(const char *name) {
    const Body *bodies[MAX_BODIES];
    const int n = runnable_bodies(bodies);
    if (!name || !*name) return n > 1 ? bodies[0] : NULL;
    for (int i = 0; i < n; i++)
        if (!strcmp(name, bodies[i]->name)) return bodies[i];
    return NULL;
}

/* The names of the bodies that run here, separated by spaces, best first. The last is plain C, for
 * tests alone. Returns their length, or -1 where `size` bytes do not hold them.
 */
PUBLIC int gpt_edge_bodies(char *names, int size) {
    const Body *bodies[MAX_BODIES];
    const int n = runnable_bodies(bodies);
    int length = 0;
    for (int i = 0; i < n; i++) {
        const int more = (int)strlen(bodies[i]->name);
        if (length + more + 2 > size) return -1;
        if (i > 0) names[length++] = ' ';
        memcpy(names + length, bodies[i]->name, (size_t)more + 1);
        length += more;
    }
    return length;
}

/* Does the body of this name run here and compute what it should? Takes some milliseconds. */
PUBLIC int gpt_edge_check(const char *name) {
    const Body *body = find_body(name);
    return body && body->check() == PRODUCTS_HASH && body->others->check() == OTHERS_HASH;
}

PUBLIC OrtStatus *RegisterCustomOps(OrtOptions *options, const OrtApiBase *base) {
    OrtApi api = base->get_api(ORT_API);
    const Body *body = find_body(getenv("GPT_EDGE_ISA"));
    if (!body) return fail(api, "no operators for this CPU, or none called as GPT_EDGE_ISA says");
    /* must outlive the session, and is as small as a name: each session gets its own */
    OrtDomain *domain = NULL;
    TRY(ORT_CREATE_DOMAIN(api)("gpt_edge", &domain));
    for (int i = 0; i < N_PRODUCTS; i++)
        TRY(ORT_ADD_TO_DOMAIN(api)(domain, body->products[i]));
    for (int i = 0; i < N_OTHERS; i++)
        TRY(ORT_ADD_TO_DOMAIN(api)(domain, body->others->operators[i]));
    return ORT_ADD_DOMAIN(api)(options, domain);
}

#ifdef _WIN32
PUBLIC void *PyInit__operators(void) { return NULL; } /* which setuptools wants, and nobody calls */
#endif
