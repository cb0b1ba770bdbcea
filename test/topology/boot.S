/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The first sector of a disk for a PC's BIOS. What lies on the disk from sector 2048 on, 64 sectors
 * in pieces of 8 so that no request is the last one, goes to the serial port.
 */

	.code16
	.globl _start
_start:
	ljmp	$0, $begin
begin:
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	movb	%dl, drive
	movw	$8, %bp
next:
	movb	$0x42, %ah		/* extended read; DL is the drive */
	movb	drive, %dl
	movw	$packet, %si
	int	$0x13
	jc	failed
	movw	$buffer, %si
	movw	$(8 * 512), %cx
	cld
	call	print
	addl	$8, sector
	decw	%bp
	jnz	next
	movw	$done, %si
	jmp	say
failed:
	movw	$error, %si
say:
	movw	$6, %cx
	call	print
halt:
	hlt
	jmp	halt

/* CX bytes from SI. */
print:
	movw	$0x3fd, %dx
wait:
	inb	%dx, %al
	testb	$0x20, %al
	jz	wait
	movw	$0x3f8, %dx
	lodsb
	outb	%al, %dx
	loop	print
	ret

done:	.ascii	"\nend.\n"
error:	.ascii	"\nbad.\n"
drive:	.byte	0

	.balign	4
packet:
	.byte	16, 0
	.word	8
	.word	buffer, 0
sector:
	.quad	2048

	.org	510
	.word	0xaa55
	.set	buffer, 0x8000
