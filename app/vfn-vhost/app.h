/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the parts of vfn-vhost offer each other. Everything here is called on the main thread.
 */

#ifndef VFN_VHOST_APP_H
#define VFN_VHOST_APP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_vdpa.h>

enum exit_code {
	EXIT_OK = 0,
	EXIT_RUNTIME = 1,   /**< EAL or a socket failed */
	EXIT_USAGE = 2,	    /**< the command line is wrong */
	EXIT_NO_DEVICE = 3, /**< EAL found no vDPA device */
};

#define report(...)	  report_(__VA_ARGS__, "")
#define report_(fmt, ...) fprintf(stderr, "vfn-vhost: " fmt "%s\n", __VA_ARGS__)

/** The command line; constant once parsed. */
extern struct options {
	const char *prefix; /**< of the socket paths; NULL: the prompt creates them */
	bool client;	    /**< the front-end owns the sockets */
	bool interactive;
} options;

/** How the devices are found: every bus, class vdpa. */
#define VDPA_DEVICES "class=vdpa"

/** Name of a vDPA device, as given to --vdev or found on its bus. */
const char *vdpa_name(struct rte_vdpa_device *dev);

/** Serve one device on one socket. 0, or -1 with the reason reported. */
int port_create(const char *path, struct rte_vdpa_device *dev);

/** Serve every device on <prefix>0, <prefix>1, ... 0, or -1 with the reason reported. */
int ports_create(const char *prefix);

/** Watch the first messages of a connection (a vhost callback): early.c. 0, or -1. */
int early_watch(int vid);

/** Disconnect every front-end and remove every socket. */
void ports_destroy(void);

unsigned int ports_count(void);

/** Socket path of a device, NULL when none was created. */
const char *port_path(const struct rte_vdpa_device *dev);

/** Rings of the connected front-end of a device, 0 when there is none. */
uint16_t port_rings(const struct rte_vdpa_device *dev);

/** Whether a socket address can hold the path; reported when not. */
bool socket_path_fits(const char *path);

/**
 * Make sure that a listening socket can be created at the path: a stale socket is removed, anything
 * else in the way is reported.
 *
 * @return
 *   the lock of socket_lock(), which is to be held until the socket listens, or -1.
 */
int socket_claim(const char *path);

/** Lock the directory of a socket against other instances; close() unlocks. -1: reported. */
int socket_lock(const char *path);

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
