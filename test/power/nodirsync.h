/* SPDX-License-Identifier: MIT */
/*
 * Included before queue.c for a build that must lose mail: its fsync() passes directories over, as stock qmail does. The power-cut
 * machine has to see that; see test/test.mk.
 */
#include <sys/stat.h>
#include <unistd.h>

static inline int
fsync_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : fsync(fd);
}
#define fsync fsync_file
