/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the parts of vfn-vhost offer each other. Everything here is called on the main thread.
 */

#ifndef VFN_VHOST_APP_H
#define VFN_VHOST_APP_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <rte_vdpa.h>

#include "../common/common.h"

enum {
	EXIT_NO_DEVICE = 3, /**< EAL found no vDPA device */
};

/** The command line; constant once parsed. */
extern struct options {
	const char *prefix; /**< of the socket paths; NULL: the prompt creates them */
	bool client;	    /**< the front-end owns the sockets */
	bool no_gate;	    /**< front-ends reach librte_vhost itself */
	bool interactive;
	const char *restore;   /**< directory with the parts of the devices, or NULL */
	const char *take_over; /**< file prefix of the process to replace, or NULL */
	bool no_confine;
	bool keep; /**< the kernel's devices stay at the end */
} options;

/** Milliseconds of the monotonic clock. */
static inline int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/** How the devices are found: every bus, class vdpa. */
#define VDPA_DEVICES "class=vdpa"

/** Whether --vdev names each device once; reported when not. Before EAL starts. */
bool devices_named_once(int argc, char **argv);

/** Whether every device that was asked for is there; reported when not. */
bool devices_complete(void);

/**
 * Wait until every device is there: behind one may be a function that another process still has.
 * False: reported which is not.
 */
bool devices_ready(void);

/** Report arguments of devices that name what is not there, or not yet. */
void devices_warn(void);

/**
 * The socket that a device is to be served on: socket=PATH of its arguments, or else the prefix
 * with the number that its name ends in. 1; 0 if there is none (prefix is NULL); -1: reported.
 */
int device_socket(struct rte_device *dev, const char *prefix, struct socket_spec *sock);

/** Is it the kernel's, with vduse=NAME? Then its name is copied. */
bool device_vduse(struct rte_device *dev, char *name, size_t size);

/** Name of a vDPA device, as given to --vdev or found on its bus. */
const char *vdpa_name(struct rte_vdpa_device *dev);

/** Serve one device on one socket. 0, or -1 with the reason reported. */
int serve_device(const struct socket_spec *sock, struct rte_vdpa_device *dev);

/**
 * Be ready to serve every device on the socket of device_socket(): front-ends may come there, and
 * wait for serving_begin(). 0, or -1 with the reason reported.
 */
int serving_prepare(const char *prefix);

/** Let front-ends in. 0, or -1 with the reason reported. */
int serving_begin(void);

/**
 * Make the kernel's devices (vduse=NAME), while we still may; and have them, unless another
 * process does. 0, or -1 with the reason reported.
 */
int vduse_create(void);

/** Have them, from the process that was taken over from. The same. */
int vduse_prepare(void);

/** Serve them. The same. */
int vduse_begin(void);

/** Stop serving; vduse_resume() goes on. -1 if one could not be. */
void vduse_suspend(void);
int vduse_resume(void);

/** Stop serving. What was served goes, unless --keep says otherwise. */
void vduse_end(void);

/** Start the gate in front of librte_vhost (lib/gate). 0, or -1 with the reason reported. */
int gate_start(void);

/** End it, and remove its directory. Allowed in any state. */
void gate_stop(void);

/** Where librte_vhost listens for a port, behind the gate: room for a socket address. */
void gate_private_path(char *path, size_t size, unsigned int port);

/**
 * Let front-ends come to a port that librte_vhost serves on its private path.
 *
 * @param listen_fd
 *   of the public socket, taken over; -1: connect to `path`.
 * @return
 *   a handle for gate_shut(), or -1 with the reason reported.
 */
int gate_serve(
	const char *path, const char *private_path, struct rte_vdpa_device *dev, int listen_fd);

/** For gate_shut(): how long librte_vhost has to close the connections of all ports shut now. */
int64_t gate_patience(void);

/** Hang up on the front-ends of a port, and let nobody else come. `until` as now_ms(). */
void gate_shut(int handle, int64_t until);

/** Disconnect every front-end and remove every socket. */
void serving_end(void);

/** The same, but serving_resume() serves the same devices again. -1 if one could not be. */
void serving_suspend(void);
int serving_resume(void);

unsigned int serving_count(void);

/** Socket path of a device, NULL when none was created. */
const char *served_path(const struct rte_vdpa_device *dev);

/** Rings of the connected front-end of a device, 0 when there is none. */
uint16_t served_rings(const struct rte_vdpa_device *dev);

/** Save a device, as its parts, to a file. 0, or -1 with the reason reported. */
int parts_save(struct rte_vdpa_device *dev, const char *path);

/**
 * Find a function of the library that holds a device's driver, with which nothing is linked.
 *
 * @param function
 *   a pointer to it, of `size` bytes; NULL if there is none.
 */
bool driver_function(struct rte_vdpa_device *dev, const char *name, void *function, size_t size);

/** Have the next guest of a device go on with saved parts. 0, or -1 with the reason reported. */
int parts_load(struct rte_vdpa_device *dev, const char *path);

/** Save every device in a directory, in files with their names. 0; -1 if one failed. */
int parts_save_all(const char *directory);

/** Load every device that has a file in a directory, which has to be there. -1 if one failed. */
int parts_load_all(const char *directory);

/** Remove the files of parts_save_all(). */
void parts_remove_all(const char *directory);

/** Leave every device's function to another process; the same takes it back. -1 if one failed. */
int parts_release_all(void);

/** Have the next guest of every device go on where the last one stopped. -1 if one failed. */
int parts_resume_all(void);

/** Be ready to hand over: a descriptor to wait on for handover_run(), or -1: reported. */
int handover_init(void);

/** Do what another process asks for. True if the program is to end. */
bool handover_run(void);

/** Milliseconds after which handover_run() is to be called again, -1: when there is something. */
int handover_timeout(void);

/**
 * Have another process let go of its devices, and restore them here.
 *
 * @param sigfd
 *   readable when the program is told to end.
 * @return
 *   a descriptor that becomes readable when the other process ends: call taken_over() then; or -1
 *   with the reason reported: the other process serves on.
 */
int take_over(const char *file_prefix, int sigfd);

/** The sockets are there. 0: the other process ends; -1: it serves again, and nothing is ours. */
int take_over_commit(void);
void taken_over(void);

enum cli_state {
	CLI_RUNNING,
	CLI_ENDED, /**< end of input */
	CLI_QUIT,  /**< the user wants the program to end */
};

/** Show the prompt on standard input and output. 0, or -1 with the reason reported. */
int cli_start(void);

/** Read and run what waits on standard input. */
enum cli_state cli_input(void);

/** Give the terminal back. Allowed in any state. */
void cli_stop(void);

#endif /* VFN_VHOST_APP_H */
