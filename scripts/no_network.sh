#!/bin/sh
# Run a command where there is no network, only this machine's own loopback:
#
#     scripts/no_network.sh python -m pytest
#
# Linux, with user namespaces: unshare (util-linux) makes an empty network, ip (iproute2) starts its loopback.
exec unshare --map-root-user --net sh -c 'ip link set lo up && exec "$@"' sh "$@"
