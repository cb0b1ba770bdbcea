/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Prints the table of lib/gate as JSON, an object per request, for the isolation tests, which make
 * their cases from it. One thread.
 */

#include <stdio.h>

#include "gate_proto.h"

static const char *const replies[] = {
	[GATE_REPLY_NONE] = "none",
	[GATE_REPLY_OWN] = "own",
	[GATE_REPLY_SHMFD] = "shmfd",
};
static const char *const rings[] = {
	[GATE_RING_NONE] = "none",
	[GATE_RING_STATE] = "state",
	[GATE_RING_FILE] = "file",
};
static const char *const fates[] = {
	[GATE_FATE_REFUSED] = "refused",
	[GATE_FATE_ANSWERED] = "answered",
	[GATE_FATE_PASSED] = "passed",
};
static const char *const phases[] = {
	[GATE_PHASE_NEW] = "new",
	[GATE_PHASE_FEATURES] = "features",
	[GATE_PHASE_MEMORY] = "memory",
	[GATE_PHASE_RUNNING] = "running",
};

static void
print_row(uint32_t request, const struct gate_proto *row)
{
	const char *comma = "";
	int i;

	printf("{\"request\": %u, \"name\": \"%s\", \"size_min\": %u, \"size_max\": %u, "
	       "\"fds_min\": %u, \"fds_max\": %u, \"reply\": \"%s\", \"feature\": ",
		request, row->name, row->size_min, row->size_max, row->fds_min, row->fds_max,
		replies[row->reply]);
	if (row->feature == GATE_PF_NONE)
		printf("null");
	else
		printf("%u", row->feature);
	printf(", \"ring\": \"%s\", \"fate\": \"%s\", \"phases\": [", rings[row->ring],
		fates[row->fate]);
	for (i = 0; i < GATE_NB_PHASES; i++) {
		if ((row->phases & GATE_IN(i)) != 0) {
			printf("%s\"%s\"", comma, phases[i]);
			comma = ", ";
		}
	}
	printf("]}");
}

int
main(void)
{
	const struct gate_proto *row;
	const char *comma = "";
	uint32_t i;

	printf("[");
	for (i = 0; i < GATE_NB_REQUESTS; i++) {
		row = gate_proto(i);
		if (row == NULL)
			continue;
		printf("%s\n", comma);
		print_row(i, row);
		comma = ",";
	}
	printf("\n]\n");
	return 0;
}
