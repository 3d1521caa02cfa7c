# A boot sector that enters long mode with paging and leaves through isa-debug-exit with the value 0x10.
# Assemble: as --64 -o probe.o probe.s && ld -m elf_x86_64 --oformat binary -Ttext 0x7c00 -o probe.bin probe.o
        .code16
        .globl _start
_start:
        cli
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        # Three page tables at 0x1000, 0x2000, 0x3000: the first 2 MiB, one to one.
        movw $0x1000, %di
        movw $0x1800, %cx
        rep stosw
        movw $0x2003, 0x1000
        movw $0x3003, 0x2000
        movw $0x0083, 0x3000
        movl $0x1000, %eax
        movl %eax, %cr3
        movl %cr4, %eax
        orl $0x20, %eax
        movl %eax, %cr4
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax
        movl %eax, %cr0
        lgdtl gdt_register
        ljmpl $0x08, $long_mode

        .code64
long_mode:
        # Some work, so that a slow processor shows: a million turns with a memory access.
        movl $1000000, %ecx
1:      addq %rcx, 0x4000
        decl %ecx
        jnz 1b
        movb $0x10, %al
        outb %al, $0xf4
2:      hlt
        jmp 2b

        .balign 8
gdt:    .quad 0
        .quad 0x00209a0000000000
gdt_register:
        .word 15
        .long gdt

        .org 510
        .word 0xaa55
