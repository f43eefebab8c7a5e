package jobs

import "syscall"

func mountSmall(dir string) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=0700")
}

func unmount(dir string) error { return syscall.Unmount(dir, 0) }
