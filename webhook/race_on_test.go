//go:build race

package webhook_test

// raceDetector makes everything some ten times slower.
const raceDetector = true
