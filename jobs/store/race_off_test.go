//go:build !race

package store_test

// many is how many jobs one store has.
const many = 10_000
