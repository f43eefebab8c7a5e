package cli

import "github.com/spf13/cobra"

// ricloudGroup returns the commands for ricloud.
func (a *app) ricloudGroup() *cobra.Command {
	c := group("ricloud", "Work with keys and configs of ricloud",
		a.keyGroup(), a.storageConfigGroup(), a.webhookConfigGroup(),
		a.organisationGroup(), a.taskGroup(), a.eventGroup())
	c.Long = `Work with keys and configs of ricloud.

The token comes from --auth-file, --auth-prompt, RICLOUD_TOKEN, the file that
RICLOUD_CONF names, or ~/.ricloud.ini, in this order.`
	a.connectionFlags(c, true)
	return c
}
