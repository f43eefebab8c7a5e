package rotation_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation"
)

// inWorld runs f in a bubble where time passes by itself, with a provider that
// stands outside of it.
func inWorld(t *testing.T, w *world, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer w.close()
		require.NoError(t, w.seed())
		f(t)
	})
}

func TestRotate(t *testing.T) {
	t.Parallel()
	for _, s := range strategies {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			w, err := newWorld(s)
			require.NoError(t, err)
			inWorld(t, w, func(t *testing.T) {
				p := w.start(t.Context(), 0)
				r, err := p.rotate()
				require.NoError(t, err)
				assert.Equal(t, rotation.StateDone, r.State)
				require.NoError(t, w.over(r))
			})
		})
	}
}
