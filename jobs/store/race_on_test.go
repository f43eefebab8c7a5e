//go:build race

package store_test

// many is fewer: it is about the time and the memory, not about races.
const many = 201 // one more than a page
