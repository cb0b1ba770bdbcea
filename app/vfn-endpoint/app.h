/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the parts of vfn-endpoint offer each other. On the main thread, but for telemetry.c.
 */

#ifndef VFN_ENDPOINT_APP_H
#define VFN_ENDPOINT_APP_H

#include <pthread.h>

#include <vfn_blk_args.h>
#include <vfn_endpoint_server.h>
#include <vfn_net_args.h>
#include <vfn_ntb_server.h>

#include "../common/common.h"

/** A function of the command line, and what became of it. */
struct served {
	struct vfn_net_args args;
	bool is_blk; /**< then its class is blk, and this counts */
	struct vfn_blk_params blk;
	struct socket_spec socket; /**< path "": it is given fd */
	bool has_mode;		   /**< or an owner */
	int fd;			   /**< a socket of whoever has started us, -1: none */
	bool host_control;	   /**< the client decides what it offers */
	char ntb_path[84];	   /**< of a bridge, in place of a socket; "": none */
	uint32_t ntb_mb, latency_us;
	struct ntb *ntb;
	struct vfn_ntb_server *ntb_server;
	struct vfn_function *fn;
	struct vfn_link *link; /**< NULL: the function is not there yet */
	struct listener listener;
	struct vfn_endpoint *endpoint; /**< NULL: nobody is served yet */
};

#define MAX_SERVED 256

/** In the order of the command line. */
extern struct served *served;
extern unsigned int nb_served;
/** Of what telemetry reads of them. */
extern pthread_mutex_t served_lock;

/** Understand a --function. 0, or -1 with the reason reported. */
int function_parse(const char *text);

/**
 * All are parsed: --socket-path and --fd belong to the only one, which is made up if there is none.
 * 0, or -1 with the reason reported.
 */
int functions_complete(const char *socket_path, const char *fd);

/** Make them. 0, or -1 with the reason reported. */
int functions_open(void);

/** Serve them. 0, or -1 with the reason reported. */
int serving_begin(void);

/** Hang up on the clients, remove the sockets, end the functions. Allowed in any state. */
void functions_close(void);

#endif /* VFN_ENDPOINT_APP_H */
