package spell

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"rotate", "retrieve", "file", "dotenv", "files"}
	for word, want := range map[string]string{
		"rotat":    "rotate", // a letter short
		"rottae":   "rotate", // two in the wrong order
		"file":     "file",   // the nearest, not the first within reach
		"filess":   "files",
		"dotenvvv": "dotenv",
		"dotenvs!": "dotenv",
		"xyz":      "",
		"":         "",
		"\xff":     "",
	} {
		assert.Equal(t, want, Nearest(word, known), "%q", word)
	}
	assert.Empty(t, Nearest("rotate", nil))
}

func TestDistance(t *testing.T) {
	t.Parallel()
	assert.Equal(t, 0, Distance("", ""))
	assert.Equal(t, 3, Distance("", "abc"))
	assert.Equal(t, 3, Distance("abc", ""))
	assert.Equal(t, 3, Distance("kitten", "sitting"))
}
