package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	assert.Equal(t, `ricloud: made key 2, which sends events to webhook config 1
ricloud: key 2 is active, token [REDACTED]
ricloud: key 1 is active, token [REDACTED]
ricloud: key 2 is back to its organisation's webhook config
ricloud: rotated key 2; the token changed: true
ricloud: deleted webhook config 1; keys themselves cannot be deleted
acedata: made credential "quickstart" of type Token, token [REDACTED]
acedata: credential "quickstart" has used 0
acedata: credential "quickstart" is limited to 5 Credit
acedata: rotated; the token changed: true
acedata: deleted credential "quickstart"
`, out.String())
}
