/* SPDX-License-Identifier: BSD-2-Clause */
/* The other end of the control socket. */
#ifndef VHOST_CTL_H
#define VHOST_CTL_H

/* The command line behind "ctl". @return the exit status */
int vhost_ctl(int argc, char **argv);

#endif
