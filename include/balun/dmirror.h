/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/**
 * DOC: dmirror.h - what the kernel's HMM test device does, on a "dmirror" device
 *
 * Linux tests its HMM with a device that does nothing but mirror: it reads and writes memory
 * through page tables of its own, moves pages to its memory and back, takes them for itself, and
 * says what it sees (lib/test_hmm.c). These are its commands, for a device opened with the spec
 * "dmirror" or, with memory that CPUs address too, "dmirror:coherent=1".
 */
#ifndef BALUN_DMIRROR_H
#define BALUN_DMIRROR_H

#include "balun/driver.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * enum balun_dmirror_op - commands, and their errors beside those of balun_fault() and -ENOMEM
 */
enum balun_dmirror_op {
	/* The device reads the range into buf, or writes buf to it. A fault asks for all that is
	 * left of the range: there is one if nothing else goes on. */
	BALUN_DMIRROR_READ,
	BALUN_DMIRROR_WRITE,
	/* What is in system memory moves to the device, what other devices have stays with them;
	 * then the device reads. -ENOENT: a page is not on the device now (others may be); -EINVAL:
	 * a part of the range is not mapped or not readable, and nothing moved. */
	BALUN_DMIRROR_TO_DEVICE,
	/* What is on this device goes home; bytes: how much did. -EINVAL as above. */
	BALUN_DMIRROR_TO_SYSTEM,
	/* What there is, without a fault: one byte a page in buf, BALUN_DMIRROR_PROT_*. */
	BALUN_DMIRROR_SNAPSHOT,
	/* The device takes the pages so that no CPU reaches them, and reads; a CPU's touch takes
	 * them back. -EBUSY: such memory cannot be taken, or a CPU was faster. */
	BALUN_DMIRROR_EXCLUSIVE,
	/* -EPERM: a page of the range is still taken. */
	BALUN_DMIRROR_CHECK_EXCLUSIVE,
	/* All that is on the device goes home, whatever the range. As balun_evict(). */
	BALUN_DMIRROR_RELEASE,
};

/*
 * A page in a snapshot, by the kernel's values. ERROR stands alone; NONE is nothing, or a page in
 * another device's private memory; else READ or WRITE, with what applies of the others.
 */
#define BALUN_DMIRROR_PROT_NONE		   0x00
#define BALUN_DMIRROR_PROT_READ		   0x01
#define BALUN_DMIRROR_PROT_WRITE	   0x02
#define BALUN_DMIRROR_PROT_PMD		   0x04 /* mapped by a 2 MiB page */
#define BALUN_DMIRROR_PROT_ZERO		   0x10 /* the zero page */
#define BALUN_DMIRROR_PROT_LOCAL	   0x20 /* in this device's private memory */
#define BALUN_DMIRROR_PROT_COHERENT	   0x40 /* in this device's coherent memory */
#define BALUN_DMIRROR_PROT_COHERENT_REMOTE 0x50 /* in another device's coherent memory */
#define BALUN_DMIRROR_PROT_ERROR	   0xff /* not mapped, or not readable */

/**
 * struct balun_dmirror_cmd - a command
 * @size: sizeof(struct balun_dmirror_cmd)
 * @op: enum balun_dmirror_op
 * @addr: first byte of the range, a multiple of 4 KiB
 * @len: bytes, a multiple of 4 KiB and not 0
 * @buf: what the device reads into or writes from: memory that never migrates (balun_mem_alloc()),
 *       for the device uses it under its lock. Undefined after an error
 * @bytes: out, also after an error: how much was read, written or moved home
 * @faults: out: how often the device met a page that its page table did not have
 */
struct balun_dmirror_cmd {
	size_t size;
	uint64_t op, addr, len;
	void *buf;
	uint64_t bytes, faults;
};

/** balun_dmirror_buf() - bytes of its buffer that a command reads or fills */
static inline size_t balun_dmirror_buf(const struct balun_dmirror_cmd *c)
{
	switch (c->op) {
	case BALUN_DMIRROR_SNAPSHOT:
		return c->len / BALUN_PAGE_SIZE;
	case BALUN_DMIRROR_READ:
	case BALUN_DMIRROR_WRITE:
	case BALUN_DMIRROR_TO_DEVICE:
	case BALUN_DMIRROR_EXCLUSIVE:
		return c->len;
	default:
		return 0;
	}
}

/**
 * balun_dmirror() - a command for a dmirror device
 * @dev: the device (wrapped by trace or inject is fine)
 *
 * Done on the caller's thread when it returns. Any thread; not from an op; may sleep.
 * Return: 0; -EINVAL not a dmirror device, no such command, a bad range; -ECHILD the process
 * forked since; what the command says.
 */
static inline int balun_dmirror(struct balun_device *dev, struct balun_dmirror_cmd *cmd)
{
	uint32_t use = cmd->op == BALUN_DMIRROR_WRITE ? BALUN_DATA_IN : BALUN_DATA_OUT;
	struct balun_command c = { "dmirror", 0, cmd, sizeof(*cmd), cmd->buf, 0, use };

	if (cmd->size != sizeof(*cmd))
		return -22; /* EINVAL */
	c.data_len = balun_dmirror_buf(cmd);
	return balun_device_command(dev, &c);
}

#ifdef __cplusplus
}
#endif
#endif
