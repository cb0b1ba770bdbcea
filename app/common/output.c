/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Standard output, standard error and the log. Every thread writes there, pollers too: nobody may
 * wait for whoever reads it. What the reader has no room for is dropped, and the log says how much.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <rte_log.h>

#include "common.h"

/* Of the log stream; under the lock that stdio takes for it. */
static unsigned int nb_lost;
static bool in_line;

/*
 * A description of its own, since others may share the inherited one, and block in it. A socket
 * cannot be opened again; systemd gives each service one of its own.
 */
static void
never_block(int fd)
{
	char path[32];
	struct stat st;
	int own;

	if (fstat(fd, &st) < 0)
		return;
	if (S_ISSOCK(st.st_mode)) {
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	} else if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		/* Not ours to open: like the socket. */
		if (own < 0 || dup2(own, fd) < 0)
			fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		if (own >= 0)
			close(own);
	}
}

static size_t
stamp(char *text, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	n = strftime(text, size, "%F %T", &tm);
	return n + snprintf(text + n, size - n, ".%03ld ", now.tv_nsec / 1000000);
}

/* One message, of a line as a rule; all of it or nothing, since a pipe takes so much at once. */
static ssize_t
log_write(void *cookie, const char *text, size_t len)
{
	char line[4096];
	size_t at = 0, left = len;

	(void)cookie;
	if (!in_line)
		at = stamp(line, sizeof(line));
	if (nb_lost > 0)
		at += snprintf(line + at, sizeof(line) - at, "(%u messages lost) ", nb_lost);
	if (left > sizeof(line) - at)
		left = sizeof(line) - at;
	memcpy(line + at, text, left);
	if (write(STDERR_FILENO, line, at + left) == (ssize_t)(at + left)) {
		nb_lost = 0;
		in_line = text[left - 1] != '\n';
	} else {
		nb_lost++;
		in_line = false;
	}
	return len;
}

void
output_init(bool log)
{
	static const cookie_io_functions_t functions = {.write = log_write};
	FILE *stream;

	never_block(STDOUT_FILENO);
	never_block(STDERR_FILENO);
	setvbuf(stdout, NULL, _IOLBF, 0);
	stream = log ? fopencookie(NULL, "w", functions) : NULL;
	if (stream == NULL)
		return;
	setvbuf(stream, NULL, _IOFBF, 4096); /* rte_log() flushes each message */
	rte_openlog_stream(stream);
}
