package cli

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

// TestPlacesHaveTheLagOfTheirSinks: the lags that are not written are those that
// hold then, and none is proposed for readers that may have to be restarted.
func TestPlacesHaveTheLagOfTheirSinks(t *testing.T) {
	t.Parallel()
	token := keywright.EnvToken("TOKEN")
	made := func(s sink.Sink, err error) sink.Sink {
		require.NoError(t, err)
		return s
	}
	sinks := map[string]sink.Sink{
		"file":       sink.File("a"),
		"dotenv":     sink.Dotenv("a", "A"),
		"ini":        sink.INI("a", "a", "a"),
		"json":       sink.JSON("a", "/a"),
		"exec":       sink.Exec("a", []string{"a"}),
		"vault":      made(sink.VaultKV2(sink.VaultConfig{Address: "https://a.example", Path: "a", Token: token})),
		"kubernetes": made(sink.KubernetesSecret(sink.KubernetesConfig{Address: "https://a.example", Namespace: "a", Name: "a", Key: "a", Token: token})),
		"github":     made(sink.GitHubActionsSecret(sink.GitHubConfig{Owner: "a", Repo: "a", Name: "A", Token: token})),
	}
	for _, place := range places {
		traits := sinks[place.name].Traits()
		assert.Equal(t, !traits.Readable, place.blind, place.name)
		i := slices.IndexFunc(place.questions, func(q question) bool { return q.field == "lag" })
		require.GreaterOrEqual(t, i, 0, place.name)
		q := place.questions[i]
		assert.Equal(t, traits.UntilRestart, q.byDefault == "", place.name)
		if q.byDefault == "" {
			assert.True(t, q.restart, place.name)
			continue
		}
		lag, err := time.ParseDuration(q.byDefault)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, lag, traits.Lag, place.name)
		if q.optional {
			assert.Equal(t, traits.Lag, lag, place.name)
		}
	}
}

func TestAnswerKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind         answerKind
		answer, want string
	}{
		{aText, "a b", "a b"},
		{aText, "7", `"7"`},
		{aText, "true", `"true"`},
		{aText, "{", `'{'`},
		{aText, "\xff", `""`},
		{aPlain, "7", "7"},
		{aPlain, "true", "true"},
		{aPlain, "#", `'#'`},
		{aNumbers, "7, 8", "[7, 8]"},
		{aNumbers, "7 8] #", "[7, '8]', '#']"},
		{aWords, "a --b=c,d [e]", "[a, '--b=c,d', '[e]']"},
		{aWords, "sh\t-e  7", `[sh, -e, "7"]`},
	} {
		assert.Equal(t, c.want, c.kind.text(c.answer))
	}
}
