//go:build !race

package jobfile_test

const raceEnabled = false
