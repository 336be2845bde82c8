/* SPDX-License-Identifier: MIT */
/* What this board wants otherwise than config.h: one #define for each option. */
#define NETWORK_FILE "/data/etc/network" /* read by /etc/init.d/S40network */
