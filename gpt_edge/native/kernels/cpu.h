/* Which bodies this CPU runs. */
#pragma once

#include "body.h"

enum { MAX_BODIES = 5 };

/* The bodies that this CPU and its system run, best first; returns their number. */
int runnable_bodies(const Body *bodies[MAX_BODIES]);
