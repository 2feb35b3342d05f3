//! A small agent of the Agent Client Protocol, as a script of the shell.

/// Returns a script that plays an agent. It answers `initialize`, `session/new` and `session/load`,
/// and runs `turn` for a prompt. It ends at the end of its input.
///
/// The script has these functions for `turn`, and the line of the last message in `$line`:
///
/// - `say TEXT`: a part of the agent's message;
/// - `update JSON`: any `session/update`, without its session;
/// - `ask JSON OPTIONS`: a request for permission for a tool call. Returns whether it was granted;
/// - `done_ REASON`: the response to the prompt;
/// - `reply JSON`: any response to the last request, with `"result"` or `"error"`.
///
/// Each message that the agent gets is appended to the file in `$ACP_LOG`, if it is set. The
/// session of `session/new` is `s1`. `capabilities` are the agent's, as JSON.
pub fn agent_script(capabilities: &str, turn: &str) -> String {
    format!(
        r#"
session=s1
post() {{ printf '%s\n' "$1"; }}
reply() {{ post "{{\"jsonrpc\":\"2.0\",\"id\":$id,$1}}"; }}
update() {{
    post "{{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{{\"sessionId\":\"$session\",\"update\":$1}}}}"
}}
say() {{ update "{{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{{\"type\":\"text\",\"text\":\"$1\"}}}}"; }}
done_() {{ reply "\"result\":{{\"stopReason\":\"$1\"}}"; }}
next() {{
    IFS= read -r line || exit 0
    test -z "$ACP_LOG" || printf '%s\n' "$line" >> "$ACP_LOG"
}}
ask() {{
    post "{{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"session/request_permission\",\"params\":{{\"sessionId\":\"$session\",\"toolCall\":$1,\"options\":$2}}}}"
    next
    case "$line" in *'"yes"'*) return 0 ;; *) return 1 ;; esac
}}
while next; do
    id=${{line##*\"id\":}} id=${{id%%[,\}}]*}}
    case "$line" in
        *'"method":"initialize"'*) reply '"result":{{"protocolVersion":1,"agentCapabilities":{capabilities}}}' ;;
        *'"method":"session/new"'*) reply '"result":{{"sessionId":"s1"}}' ;;
        *'"method":"session/load"'*)
            session=${{line##*\"sessionId\":\"}} session=${{session%%\"*}}
            say 'from an earlier turn'
            reply '"result":null' ;;
        *'"method":"session/prompt"'*)
            session=${{line##*\"sessionId\":\"}} session=${{session%%\"*}}
{turn}
            ;;
    esac
done
"#
    )
}
