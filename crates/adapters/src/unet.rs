//! What parts of a Stable Diffusion UNet are called in diffusers' checkpoints and in single files, as flat names: dots are
//! underscores. Adapters are made with the former; users merge them into the latter. (diffusers,
//! `scripts/convert_diffusers_to_original_stable_diffusion.py`.)

/// Names inside a residual block: diffusers', and the single file's.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers_0"),
    ("conv1", "in_layers_2"),
    ("norm2", "out_layers_0"),
    ("conv2", "out_layers_3"),
    ("time_emb_proj", "emb_layers_1"),
    ("conv_shortcut", "skip_connection"),
];

/// Names outside of blocks.
const OUTSIDE: [(&str, &str); 5] = [
    ("time_embedding_linear_1", "time_embed_0"),
    ("time_embedding_linear_2", "time_embed_2"),
    ("conv_in", "input_blocks_0_0"),
    ("conv_norm_out", "out_0"),
    ("conv_out", "out_2"),
];

/// The single file's name of a module that diffusers calls so; `None` for what is no part of such a UNet.
pub(crate) fn original(flat: &str) -> Option<String> {
    if let Some((_, to)) = OUTSIDE.iter().find(|(from, _)| *from == flat) {
        return Some((*to).to_owned());
    }
    let (block, rest) = block(flat)?;
    let Some(inner) = rest.strip_prefix('_') else { return rest.is_empty().then_some(block.0) };
    if !block.1 {
        return Some(format!("{}_{inner}", block.0));
    }
    let (_, to) = RESNET.iter().find(|(from, _)| *from == inner)?;
    Some(format!("{}_{to}", block.0))
}

/// The block's name and whether it is a residual one, and what comes behind it.
fn block(flat: &str) -> Option<((String, bool), &str)> {
    if let Some(rest) = flat.strip_prefix("mid_block_") {
        let (kind, j, rest) = part(rest)?;
        return match (kind, j) {
            ("attentions", 0) => Some((("middle_block_1".to_owned(), false), rest)),
            ("resnets", 0 | 1) => Some(((format!("middle_block_{}", 2 * j), true), rest)),
            _ => None,
        };
    }
    let (down, rest) = match flat.strip_prefix("down_blocks_") {
        Some(rest) => (true, rest),
        None => (false, flat.strip_prefix("up_blocks_")?),
    };
    let (i, rest) = number(rest)?;
    let (kind, j, rest) = part(rest.strip_prefix('_')?)?;
    if i > 3 || j > 2 {
        return None;
    }
    let name = match (down, kind) {
        (true, "resnets") => format!("input_blocks_{}_0", 3 * i + j + 1),
        (true, "attentions") => format!("input_blocks_{}_1", 3 * i + j + 1),
        (true, "downsamplers") => {
            let rest = rest.strip_prefix("_conv")?;
            return Some(((format!("input_blocks_{}_0_op", 3 * (i + 1)), false), rest));
        }
        (false, "resnets") => format!("output_blocks_{}_0", 3 * i + j),
        (false, "attentions") => format!("output_blocks_{}_1", 3 * i + j),
        (false, "upsamplers") => format!("output_blocks_{}_{}", 3 * i + 2, if i == 0 { 1 } else { 2 }),
        _ => return None,
    };
    Some(((name, kind == "resnets"), rest))
}

/// `KIND_NUMBER` at the beginning.
fn part(text: &str) -> Option<(&str, u64, &str)> {
    let (kind, rest) = text.split_once('_')?;
    let (n, rest) = number(rest)?;
    Some((kind, n, rest))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::original;

    #[test]
    fn names_are_those_of_single_files() {
        // From the table that the script prints.
        for (from, to) in [
            ("conv_in", "input_blocks_0_0"),
            ("down_blocks_0_resnets_1_conv1", "input_blocks_2_0_in_layers_2"),
            ("down_blocks_2_attentions_0_proj_in", "input_blocks_7_1_proj_in"),
            ("down_blocks_1_downsamplers_0_conv", "input_blocks_6_0_op"),
            (
                "mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
                "middle_block_1_transformer_blocks_0_attn1_to_q",
            ),
            ("mid_block_resnets_1_time_emb_proj", "middle_block_2_emb_layers_1"),
            (
                "up_blocks_3_attentions_2_transformer_blocks_0_ff_net_2",
                "output_blocks_11_1_transformer_blocks_0_ff_net_2",
            ),
            ("up_blocks_0_upsamplers_0_conv", "output_blocks_2_1_conv"),
            ("up_blocks_1_upsamplers_0_conv", "output_blocks_5_2_conv"),
            ("up_blocks_2_resnets_2_conv_shortcut", "output_blocks_8_0_skip_connection"),
        ] {
            assert_eq!(original(from).as_deref(), Some(to), "{from}");
        }
        for other in
            ["down_blocks_9_resnets_0_conv1", "double_blocks_0_img_attn_qkv", "mid_block_resnets", ""]
        {
            assert_eq!(original(other), None, "{other}");
        }
    }
}
