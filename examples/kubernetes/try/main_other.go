//go:build !linux

// Try needs Linux: its containers are processes of Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "try: this needs Linux")
	os.Exit(1)
}
