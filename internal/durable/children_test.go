//go:build !unix

package durable_test

// children are none: the tests that need them are for Unix.
var children map[string]func(args []string) int
