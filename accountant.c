/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The accountant as main sees it: it can be killed at any moment, since all it knows is in the file. SIGINT ends it when the last records are
 * sent.
 */
#include "accountant.h"

#if ACCOUNTING

#include "acct.h"
#include "clerk.h"
#include "control.h"
#include "secret.h"

#include <signal.h>

static struct clerk clerk = { .name = "stile-acct", .event = "acct" };
static int first;

void
accountant_init(int fresh)
{
	clerk.wanted = 1;
	first = fresh;
}

int
accountant_running(void)
{
	return clerk.pid != 0;
}

void
accountant_renew(void)
{
	clerk_renew(&clerk);
}

void
accountant_stop(int finish)
{
	clerk_stop(&clerk, finish ? SIGINT : SIGTERM);
}

int64_t
accountant_due(void)
{
	return clerk_due(&clerk);
}

void
accountant_tend(const struct house *h)
{
	switch (clerk_start(&clerk, acct_fd() != -1 && acct_wanted(h->config))) {
	case 0:
		secret_keep_radius(h->config->secrets, 0);
		clerk_place(h, &clerk, PRIV_WARDEN, -1);
		acct_send(h, first);
	case 1:
		first = 0;
		break;
	default:
		break;
	}
}

int
accountant_died(pid_t pid, int status)
{
	return clerk_died(&clerk, pid, status);
}

#endif
