/* SPDX-License-Identifier: MIT */
/* What this board wants otherwise than config.h: one #define for each option. */

/* As many as there is memory for on a box with 32 MB (board/README.md): more would end by the kernel's choice of a victim. */
#define SESSIONS_MAX 64
#define NETWORK_FILE "/data/etc/network" /* read by /etc/init.d/S40network */
