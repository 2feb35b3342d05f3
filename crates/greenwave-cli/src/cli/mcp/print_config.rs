//! `greenwave mcp --print-config`: the settings with which a client starts the server.

use clap::ValueEnum;

/// Programs that start servers of the Model Context Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ClientProgram {
    /// Claude Code: `.mcp.json` in the project
    Claude,
    /// Codex: `~/.codex/config.toml`
    Codex,
    /// OpenCode: `opencode.json` in the project
    Opencode,
    /// Gemini CLI: `.gemini/settings.json` in the project
    Gemini,
    /// VS Code: `.vscode/mcp.json` in the project
    Vscode,
    /// Cursor: `.cursor/mcp.json` in the project
    Cursor,
}

impl ClientProgram {
    /// Returns the file for the settings.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Claude => ".mcp.json",
            Self::Codex => "~/.codex/config.toml",
            Self::Opencode => "opencode.json",
            Self::Gemini => ".gemini/settings.json",
            Self::Vscode => ".vscode/mcp.json",
            Self::Cursor => ".cursor/mcp.json",
        }
    }

    /// Returns the settings. Where a client limits the time of a call to less than tests take, they
    /// raise the limit to an hour.
    pub(super) fn settings(self) -> &'static str {
        match self {
            Self::Claude | Self::Cursor => {
                r#"{
  "mcpServers": {
    "greenwave": { "command": "greenwave", "args": ["mcp"] }
  }
}"#
            }
            Self::Codex => {
                r#"[mcp_servers.greenwave]
command = "greenwave"
args = ["mcp"]
tool_timeout_sec = 3600"#
            }
            Self::Opencode => {
                r#"{
  "$schema": "https://opencode.ai/config.json",
  "mcp": {
    "greenwave": { "type": "local", "command": ["greenwave", "mcp"], "enabled": true }
  }
}"#
            }
            Self::Gemini => {
                r#"{
  "mcpServers": {
    "greenwave": { "command": "greenwave", "args": ["mcp"], "timeout": 3600000 }
  }
}"#
            }
            Self::Vscode => {
                r#"{
  "servers": {
    "greenwave": { "type": "stdio", "command": "greenwave", "args": ["mcp"] }
  }
}"#
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_settings_are_valid_and_start_the_server() {
        for client in ClientProgram::value_variants() {
            let settings = client.settings();
            if client.file().ends_with(".toml") {
                toml::de::DeTable::parse(settings).unwrap();
            } else {
                serde_json::from_str::<serde_json::Value>(settings).unwrap();
            }
            assert!(settings.contains("\"greenwave\"") && settings.contains("\"mcp\""), "{settings}");
        }
    }
}
