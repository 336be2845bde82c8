/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* In place of libFuzzer: run each file that is named, twice, since what one run leaves behind must not disturb the next. */
#include "fuzz.h"

#include <stdio.h>

#pragma weak LLVMFuzzerInitialize

int
main(int argc, char **argv)
{
	static uint8_t mem[1 << 20];

	if (LLVMFuzzerInitialize != NULL) {
		LLVMFuzzerInitialize(&argc, &argv);
	}
	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "r");
		size_t len;
		uint8_t *p;

		if (f == NULL) {
			perror(argv[i]);
			return 1;
		}
		len = fread(mem, 1, sizeof mem, f);
		fclose(f);
		p = malloc(len); /* of this size, for the sanitizer to guard */
		if (p == NULL) {
			return 1;
		}
		memcpy(p, mem, len);
		fprintf(stderr, "%s\n", argv[i]);
		LLVMFuzzerTestOneInput(p, len);
		LLVMFuzzerTestOneInput(p, len);
		free(p);
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
