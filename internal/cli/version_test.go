package cli

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
)

func TestVersionOf(t *testing.T) {
	t.Parallel()
	v := versionOf(nil, false)
	assert.Equal(t, keywright.Version, v.Version)
	assert.Nil(t, v.Revision)
	assert.Nil(t, v.Time)
	assert.Nil(t, v.Modified)
	v = versionOf(&debug.BuildInfo{Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0a1b2c"},
		{Key: "vcs.time", Value: "2027-01-31T12:00:00Z"},
		{Key: "vcs.modified", Value: "true"},
	}}, true)
	require.NotNil(t, v.Revision)
	assert.Equal(t, "0a1b2c", *v.Revision)
	require.NotNil(t, v.Time)
	assert.Equal(t, time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC), *v.Time)
	require.NotNil(t, v.Modified)
	assert.True(t, *v.Modified)
}
