package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWrapped(t *testing.T) {
	t.Parallel()
	const text = "short\n  a line that is longer than the screen is wide\n漢字漢字漢字 漢字漢字漢字 漢字\nunbreakable-unbreakable-unbreakable\n"
	assert.Equal(t, text, wrapped(text, unlimited))
	assert.Equal(t, "short\n  a line that is longer\n    than the screen is\n    wide\n漢字漢字漢字\n  漢字漢字漢字 漢字\nunbreakable-unbreakable-unbreakable\n", wrapped(text, 26))
	assert.Equal(t, text, wrapped(text, 10), "where there is next to no room, nothing is broken")
}
