/* SPDX-License-Identifier: MIT */
/*
 * Site overrides for this machine, read before config.h: for each option you want to change, one #define here. Example:
 * #define SESSIONS_MAX 40
 */
