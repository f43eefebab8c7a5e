//go:build race

package rotation_test

// raceDetector makes everything some ten times slower.
const raceDetector = true
