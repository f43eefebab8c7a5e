// Package rotator is the program keywright-rotator: it rotates the jobs of
// keywright.yaml on schedule, and shows how they stand.
package rotator
