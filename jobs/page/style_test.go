package page

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// schemes reads the colours of the light and of the dark scheme.
func schemes(t *testing.T) map[string]map[string]string {
	t.Helper()
	light, rest, ok := strings.Cut(style, "@media (prefers-color-scheme: dark)")
	require.True(t, ok)
	dark, _, ok := strings.Cut(rest, "\n}\n")
	require.True(t, ok)
	variable := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`)
	found := make(map[string]map[string]string)
	for name, text := range map[string]string{"light": light, "dark": dark} {
		found[name] = make(map[string]string)
		for _, m := range variable.FindAllStringSubmatch(text, -1) {
			found[name][m[1]] = m[2]
		}
	}
	require.Len(t, found["dark"], len(found["light"]), "both schemes have every colour")
	return found
}

// contrast is the contrast ratio of WCAG 2.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(c string) (l float64) {
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			n, err := strconv.ParseUint(c[1+2*i:3+2*i], 16, 8)
			require.NoError(t, err)
			v := float64(n) / 255
			if v <= 0.04045 {
				v /= 12.92
			} else {
				v = math.Pow((v+0.055)/1.055, 2.4)
			}
			l += weight * v
		}
		return l
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestContrast(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 21, contrast(t, "#000000", "#ffffff"), 0.01)
	texts := []string{"ink", "quiet", "accent", "danger", "warn"}
	for scheme, colour := range schemes(t) {
		ratio := func(least float64, front, back string) {
			require.NotEmpty(t, colour[front], front)
			require.NotEmpty(t, colour[back], back)
			require.GreaterOrEqual(t, contrast(t, colour[front], colour[back]), least, "%s: %s on %s", scheme, front, back)
		}
		for _, front := range texts { // AA for texts
			for _, back := range []string{"paper", "raised", "danger-paper"} {
				ratio(4.5, front, back)
			}
		}
		ratio(4.5, "on-accent", "accent")
		for _, back := range []string{"paper", "raised"} { // for what must be seen to be used
			ratio(3, "edge", back)
		}
		for _, fill := range []string{"accent", "warn"} {
			ratio(3, fill, "track")
		}
	}
}

// The policy of the page allows one style, and nothing that it would fetch.
func TestStyle(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"@import", "url(", "http", "expression", "</", "<!--"} {
		require.NotContains(t, style, word)
	}
	used := regexp.MustCompile(`var\(--([a-z-]+)\)`)
	for _, m := range used.FindAllStringSubmatch(style, -1) {
		require.Contains(t, schemes(t)["light"], m[1])
	}
}
