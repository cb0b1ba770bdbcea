/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Hot upgrade: a new process takes the devices over from a running one, over the telemetry socket
 * of that one. The old process disconnects its front-ends and saves its devices; the new one
 * restores them and connects the same sockets.
 *
 *   new                                     old
 *   EAL and devices are up
 *   /vfn_vhost/hand_over,DIRECTORY    ->    ports_destroy(), states_save(DIRECTORY)
 *                                     <-    the answer
 *   states_load(DIRECTORY), ports_create()
 *   /vfn_vhost/leave                  ->    ends
 *
 * Telemetry's threads ask; the main thread does it, since ports are its own.
 */

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_telemetry.h>

#include "app.h"

#define HAND_OVER "/vfn_vhost/hand_over"
#define LEAVE	  "/vfn_vhost/leave"

#define ANSWER_S 60 /* stopping and saving takes milliseconds per device */

/* ---- the old process ---- */

static struct {
	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t done;
	char directory[PATH_MAX]; /* what is asked for, "": nothing */
	bool handed_over;
	bool leave;
	int ret;
} handover = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static int request_fd = -1;

/* Telemetry's thread; it waits for the main one. */
static int
asked_to_hand_over(const char *cmd, const char *params, struct rte_tel_data *d)
{
	int ret;

	(void)cmd;
	if (params == NULL || params[0] != '/' || strlen(params) >= sizeof(handover.directory))
		return -EINVAL;
	pthread_mutex_lock(&handover.lock);
	if (handover.directory[0] != '\0' || handover.handed_over) {
		pthread_mutex_unlock(&handover.lock);
		return -EBUSY;
	}
	strcpy(handover.directory, params);
	eventfd_write(request_fd, 1);
	while (handover.directory[0] != '\0')
		pthread_cond_wait(&handover.done, &handover.lock);
	ret = handover.ret;
	pthread_mutex_unlock(&handover.lock);
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_string(d, "result", ret == 0 ? "complete" : "incomplete");
	return 0;
}

/* Telemetry's thread. */
static int
asked_to_leave(const char *cmd, const char *params, struct rte_tel_data *d)
{
	int ret = -EPERM;

	(void)cmd;
	(void)params;
	pthread_mutex_lock(&handover.lock);
	if (handover.handed_over) {
		handover.leave = true;
		eventfd_write(request_fd, 1);
		rte_tel_data_string(d, "leaving");
		ret = 0;
	}
	pthread_mutex_unlock(&handover.lock);
	return ret;
}

int
handover_init(void)
{
	request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (request_fd < 0) {
		report("eventfd: %s", strerror(errno));
		return -1;
	}
	rte_telemetry_register_cmd(HAND_OVER, asked_to_hand_over,
		"Disconnect, and save every device for another process. Parameter: directory");
	rte_telemetry_register_cmd(LEAVE, asked_to_leave, "End, after everything was handed over.");
	return request_fd;
}

bool
handover_run(void)
{
	eventfd_t count;
	bool leave;

	eventfd_read(request_fd, &count);
	pthread_mutex_lock(&handover.lock);
	if (handover.directory[0] != '\0') {
		ports_destroy();
		handover.ret = states_save(handover.directory);
		handover.handed_over = true;
		printf("vfn-vhost: handed over to %s\n", handover.directory);
		handover.directory[0] = '\0';
		pthread_cond_broadcast(&handover.done);
	}
	leave = handover.leave;
	pthread_mutex_unlock(&handover.lock);
	return leave;
}

/* ---- the new process ---- */

/* The other one's runtime directory is beside ours. */
static int
connect_to(const char *file_prefix)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = ANSWER_S};
	const char *own = rte_eal_get_runtime_dir(), *end = strrchr(own, '/');
	int fd, n;

	n = snprintf(un.sun_path, sizeof(un.sun_path), "%.*s/%s/dpdk_telemetry.v2",
		(int)(end != NULL ? end - own : 0), own, file_prefix);
	if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
		report("the telemetry socket of %s has too long a path", file_prefix);
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
		connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		report("cannot take over from %s: %s: %s", file_prefix, un.sun_path,
			strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static bool
ask(int fd, const char *command, char *answer, size_t size)
{
	ssize_t n;

	if (send(fd, command, strlen(command), MSG_NOSIGNAL) < 0)
		return false;
	n = recv(fd, answer, size - 1, 0);
	answer[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static bool
hand_over(int fd, const char *directory)
{
	char command[PATH_MAX + sizeof(HAND_OVER) + 1], answer[1024];

	/* It greets first. */
	if (recv(fd, answer, sizeof(answer), 0) <= 0)
		return false;
	snprintf(command, sizeof(command), HAND_OVER ",%s", directory);
	if (!ask(fd, command, answer, sizeof(answer)) || strstr(answer, "complete") == NULL)
		return false;
	if (strstr(answer, "incomplete") != NULL)
		report("not every device could be saved");
	return true;
}

int
take_over(const char *file_prefix)
{
	char directory[PATH_MAX];
	int fd = connect_to(file_prefix);

	if (fd < 0)
		return -1;
	snprintf(directory, sizeof(directory), "%s/take-over.XXXXXX", rte_eal_get_runtime_dir());
	if (mkdtemp(directory) == NULL) { /* mode 0700 */
		report("cannot create %s: %s", directory, strerror(errno));
	} else if (!hand_over(fd, directory)) {
		report("%s does not hand over: not a vfn-vhost, or it has done so already",
			file_prefix);
		rmdir(directory);
	} else {
		/* There is no way back: a device without its state is better than none. */
		if (states_load(directory, true) != 0 || rmdir(directory) != 0)
			report("what could not be taken over is in %s", directory);
		return fd;
	}
	close(fd);
	return -1;
}

void
taken_over(int fd)
{
	char answer[1024];

	/* It may be gone before it answers. */
	ask(fd, LEAVE, answer, sizeof(answer));
	close(fd);
}
