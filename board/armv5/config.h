/* SPDX-License-Identifier: MIT */
/* What this board wants otherwise than config.h: one #define for each option. */
